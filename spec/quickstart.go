package spec

import _ "embed"

//go:embed quickstart.yaml
var quickstart string

// Quickstart is the spec that runs when none is named, in YAML: a few seconds of
// wake-ups beside background load. It is examples/quickstart.yaml.
func Quickstart() []byte { return []byte(quickstart) }
