"""What people see: functions from tables and pixels to figures. Nothing is measured here."""
