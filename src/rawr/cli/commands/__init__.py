"""One module per command or small family. `rawr.cli.table` names them; nothing else imports them."""
