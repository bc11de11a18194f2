package docs

import (
	"testing"

	"github.com/guestinit/guestinit/spec/schema"
)

// TestSpecSchema keeps docs/spec.schema.json what the types and tables say.
func TestSpecSchema(t *testing.T) {
	want, err := schema.Build()
	if err != nil {
		t.Fatal(err)
	}
	if read(t, "docs/spec.schema.json") != string(want) {
		t.Error("docs/spec.schema.json is not what the code says; go run ./cmd/guestinit spec schema > docs/spec.schema.json")
	}
}
