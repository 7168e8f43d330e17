"""What `ezmsg doctor` looks at, one module per topic; each returns findings and changes nothing."""
