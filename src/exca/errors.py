"""The error classes of exca, each deriving from the builtin that a caller would catch anyway."""
