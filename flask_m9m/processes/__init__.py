"""What the processes of one machine share: forks, the boot clock, a safe directory."""
