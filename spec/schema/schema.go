// Package schema makes the JSON Schema (draft 2020-12) of a workload spec, out of
// the types of package spec and the table of package worker. It says what
// form a spec has, and the ranges of single values; what depends on several of
// them (names that are taken, sizes of sets, sums) is only for the validator of
// package spec to say. It may import spec and worker, and is for the command line
// alone: no guest makes a schema.
package schema

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/guestinit/guestinit/spec"
	"github.com/guestinit/guestinit/worker"
)

// object is a JSON object of a schema; encoding/json sorts its keys.
type object = map[string]any

// Build is the schema, indented, with the work types that the program registered
// before: a program with types of its own publishes its own schema. The error names
// a type of package spec that the schema cannot express: it needs a row in the
// tables of this package.
func Build() ([]byte, error) {
	b := builder{defs: object{}}
	root := b.structure(reflect.TypeFor[spec.Spec]())
	b.work()
	if b.err != nil {
		return nil, fmt.Errorf("build schema: %w", b.err)
	}
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = fmt.Sprintf("guestinit workload spec, version %d", spec.Version)
	root["$defs"] = b.defs
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode schema: %w", err)
	}
	return append(text, '\n'), nil
}

type builder struct {
	defs object
	err  error
}

// ref refers to the definition of a struct, which it makes first.
func (b *builder) ref(t reflect.Type) object {
	name := t.Name()
	if _, made := b.defs[name]; !made {
		b.defs[name] = true // it may hold itself
		def := b.structure(t)
		if also := otherForms(name); also != nil {
			def = object{"anyOf": append([]any{def}, also...)}
		}
		b.defs[name] = def
	}
	return object{"$ref": "#/$defs/" + name}
}

// structure is the schema of a struct: its JSON names, those that are required,
// and nothing else.
func (b *builder) structure(t reflect.Type) object {
	properties, required := object{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("json")
		name, options, _ := strings.Cut(tag, ",")
		if !ok || name == "-" || name == "" || !f.IsExported() {
			continue
		}
		properties[name] = b.field(t.Name()+"."+name, f.Type)
		if !strings.Contains(options, "omitempty") {
			required = append(required, name)
		}
	}
	s := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	for k, v := range together(t.Name()) {
		s[k] = v
	}
	return s
}

// field is the schema of a field, named "Type.json_name".
func (b *builder) field(name string, t reflect.Type) object {
	if special := specialField(name); special != nil {
		return special(b)
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	s := b.value(name, t)
	for k, v := range bounds(name) {
		s[k] = v
	}
	return s
}

func (b *builder) value(name string, t reflect.Type) object {
	if form := valueForm(t); form != nil {
		return form
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.String:
		return object{"type": "string", "minLength": 1}
	case reflect.Struct:
		if t == reflect.TypeFor[spec.Work]() {
			return object{"$ref": "#/$defs/Work"}
		}
		return b.ref(t)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return object{"type": "array", "items": object{"type": []string{"string", "number"}}}
		}
		return object{"type": "array", "items": b.value(name, t.Elem())}
	}
	if b.err == nil {
		b.err = fmt.Errorf("%s: a %s has no form in a schema", name, t)
	}
	return object{}
}

// work makes the definition of Work: a name alone, or one with its parameters.
func (b *builder) work() {
	var bare []string
	forms := []any{nil}
	for _, t := range worker.All() {
		if !t.NeedsParams() {
			bare = append(bare, t.Name)
		}
		b.defs["work_"+t.Name] = workType(t)
		forms = append(forms, object{"$ref": "#/$defs/work_" + t.Name})
	}
	forms[0] = object{"type": "string", "enum": bare}
	b.defs["Work"] = object{"oneOf": forms}
}

func workType(t *worker.Type) object {
	properties, required := object{"type": object{"const": t.Name}}, []string{"type"}
	for i := range t.Params {
		p := &t.Params[i]
		s := param(p)
		s["description"] = p.Summary
		properties[p.Name] = s
		if p.Required {
			required = append(required, p.Name)
		}
	}
	return object{"type": "object", "description": t.Summary, "properties": properties, "required": required, "additionalProperties": false}
}

// param is the schema of a parameter of a work type.
func param(p *worker.Param) object {
	switch p.Kind {
	case worker.Count:
		return object{"type": "integer", "minimum": p.Min, "maximum": p.Max, "default": p.Default}
	case worker.Duration:
		return object{"type": "string", "pattern": paramPattern, "default": p.Format(p.Default), "$comment": p.Format(p.Min) + " to " + p.Format(p.Max)}
	case worker.Enum:
		return object{"enum": p.Values, "default": p.Values[p.Default]}
	case worker.Bool:
		return object{"type": "boolean", "default": p.Default != 0}
	case worker.Nodes:
		return object{"type": []string{"string", "integer"}, "pattern": anyListPattern, "minimum": 0, "maximum": 63}
	case worker.Phases:
		phases := object{}
		for _, name := range p.Values {
			phases[name] = object{"type": "string", "pattern": paramPattern}
		}
		return object{"type": "array", "minItems": 1, "maxItems": worker.MaxPhases, "items": object{
			"type": "object", "properties": phases, "additionalProperties": false, "minProperties": 1, "maxProperties": 1}}
	case worker.Texts:
		if p.Name == "argv" { // of exec
			first := object{"type": "string", "pattern": `^(/[\s\S]*[^/]|[^/]+)$`}
			return object{"anyOf": []any{first, object{"type": "array", "minItems": p.Min, "maxItems": p.Max, "prefixItems": []any{first}, "items": object{"type": "string"}}}}
		}
		return object{"type": []string{"string", "array"}, "minItems": p.Min, "maxItems": p.Max, "items": object{"type": "string"}}
	case worker.Pairs:
		return object{"type": "object", "maxProperties": p.Max, "propertyNames": object{"pattern": "^[^=]+$"}, "additionalProperties": object{"type": "string"}}
	}
	return object{"type": "string", "maxLength": worker.MaxText, "default": p.Text}
}
