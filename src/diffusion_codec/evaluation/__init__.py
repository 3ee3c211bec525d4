"""Rate-distortion evaluation: sweep -> records -> tables. Figures are drawn from the files it writes."""
