"""What is stored: the files of a run and of a study, as typed records. The only package that knows file names."""
