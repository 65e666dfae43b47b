"""The doctor: the checks of `flask m9m doctor`, each finding with a reason and a fix."""
