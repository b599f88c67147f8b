"""Who is calling: the credentials of an instance, and what each of them may do."""
