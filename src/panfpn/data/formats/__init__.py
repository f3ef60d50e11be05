"""Each format of image files: what its header says, and the samples as stored. In: bytes. Out: `Header`, arrays."""
