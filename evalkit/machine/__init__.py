"""This process and the machine it runs on: signals, output streams, time and memory used."""
