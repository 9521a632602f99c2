"""What predictions say of single images and of classes."""
