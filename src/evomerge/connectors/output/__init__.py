"""Between examples and the output space: what experts are asked, and what their answers say."""
