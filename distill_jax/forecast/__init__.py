"""What a stage will hold on each device, forecast before anything is loaded."""
