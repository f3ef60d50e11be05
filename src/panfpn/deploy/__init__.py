"""A trained network at work. In: images, folders, videos. Out: maps, files of them, submissions to benchmarks."""
