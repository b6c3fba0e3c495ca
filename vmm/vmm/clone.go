package vmm

import (
	"fmt"
	"reflect"
)

// clone copies a device's state, which is plain data (device.Model), down to the
// last slice: a model may keep what it is given, and change it.
func clone[T any](v T) T {
	p := reflect.New(reflect.TypeFor[T]())
	p.Elem().Set(reflect.ValueOf(&v).Elem())
	detach(p.Elem())
	return p.Elem().Interface().(T)
}

// detach has v share nothing with what it was copied from.
func detach(v reflect.Value) {
	switch v.Kind() {
	case reflect.Slice:
		if v.IsNil() {
			return
		}
		c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(c, v)
		v.Set(c)
		if !flat(v.Type().Elem()) {
			for i := range v.Len() {
				detach(v.Index(i))
			}
		}
	case reflect.Array:
		if !flat(v.Type().Elem()) {
			for i := range v.Len() {
				detach(v.Index(i))
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				detach(f)
			}
		}
	case reflect.Interface:
		if v.IsNil() {
			return
		}
		c := reflect.New(v.Elem().Type()).Elem()
		c.Set(v.Elem())
		detach(c)
		v.Set(c)
	}
}

// flat is whether values of a type hold nothing by reference, as far as is seen
// at once.
func flat(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Slice, reflect.Array, reflect.Struct, reflect.Interface:
		return false
	}
	return true
}

// plain is an error where a type of a model's state is not plain data.
func plain(t reflect.Type) error {
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return plain(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if !f.IsExported() {
				return fmt.Errorf("%s of %s is not exported: it would be lost", f.Name, t)
			}
			if err := plain(f.Type); err != nil {
				return err
			}
		}
	case reflect.Bool, reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
	default:
		return fmt.Errorf("a %s is not plain data", t)
	}
	return nil
}
