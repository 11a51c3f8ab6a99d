"""What a person declares in TOML: recipes and studies, as typed, frozen values."""
