"""Programs that run in real time and print figures; none of them is a test."""
