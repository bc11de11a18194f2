package docs

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/guestinit/guestinit/spec"
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

// property is what the schema says of a field's values.
type property struct {
	Minimum, Maximum, MaxItems, MaxLength *float64
	Enum                                  []any
}

// definition is a type of the schema, whatever else may stand in its place.
type definition struct {
	Properties map[string]property
	AnyOf      []definition
	Required   []string
}

// TestSpecSays holds the tables of docs/spec.md against the schema: a field's row
// has the ends of its range and its words, and says which fields are required.
func TestSpecSays(t *testing.T) {
	var schema struct {
		definition
		Defs map[string]definition `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(read(t, "docs/spec.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	schema.Defs["Spec"] = schema.definition
	text := strings.NewReplacer("−", "-", ",", "").Replace(read(t, "docs/spec.md"))
	checked := 0
	for name, d := range schema.Defs {
		if len(d.AnyOf) > 0 {
			d = d.AnyOf[0]
		}
		body, ok := section(text, name)
		if !ok {
			continue // work types have docs/work-types.md; TestFields has all others
		}
		for field, p := range d.Properties {
			row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(field) + "` \\|.*$").FindString(body)
			if strings.HasSuffix(row, "| as in a group |") {
				continue
			}
			for _, want := range p.says() {
				if checked++; !strings.Contains(row, want) {
					t.Errorf("%s: the row of %s does not say %s: %s", name, field, want, row)
				}
			}
		}
		for _, field := range d.Required {
			if row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(field) + "` \\|.*$").FindString(body); !strings.Contains(row, "| required") {
				t.Errorf("%s: the row of %s does not say that it is required: %s", name, field, row)
			}
			checked++
		}
	}
	if checked < 60 {
		t.Errorf("%d facts compared", checked)
	}
}

// says is what a row has to have of a property: numbers other than 0 and 1, which
// words say too, and words.
func (p property) says() (facts []string) {
	for _, n := range []*float64{p.Minimum, p.Maximum, p.MaxItems, p.MaxLength} {
		if n != nil && *n != 0 && *n != 1 && *n != spec.MaxCPU-1 { // which "Forms of values" says
			facts = append(facts, fmt.Sprintf("%.0f", *n))
		}
	}
	for _, word := range p.Enum {
		if s, ok := word.(string); ok {
			facts = append(facts, "`"+s+"`")
		}
	}
	return facts
}
