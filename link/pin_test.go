package link

import (
	"errors"
	"slices"
	"testing"
)

func TestDefaultPin(t *testing.T) {
	if got := DefaultPin(UDP, 443, 1); got != PinAddress {
		t.Errorf("of UDP: %q", got)
	}
	for _, test := range []struct {
		port  uint16
		names int
		want  Pin
	}{
		{443, 1, PinTLS}, {443, 0, PinAddress}, {5432, 1, PinPostgres}, {1433, 1, PinTDS}, {3306, 2, PinMySQL}, {3306, 0, PinAddress},
		{25, 1, PinAddress}, {587, 1, PinAddress}, {465, 1, PinTLS}, {389, 1, PinAddress}, {636, 1, PinTLS},
	} {
		if got := DefaultPin(TCP, test.port, test.names); got != test.want {
			t.Errorf("port %d, %d names: %s, want %s", test.port, test.names, got, test.want)
		}
	}
	if !slices.Contains(Pins(), PinAddress) || len(Pins()) != 5 {
		t.Error(Pins())
	}
}

// X20: no pin for protocols that begin in clear, and what to use instead.
func TestPinPort(t *testing.T) {
	for port := range startTLS {
		if err := CheckPinPort(PinTLS, port); !errors.Is(err, ErrInvalid) {
			t.Errorf("pin tls on %d: %v", port, err)
		}
		if err := CheckPinPort(PinAddress, port); err != nil {
			t.Errorf("pin address on %d: %v", port, err)
		}
		if err := CheckPinPort(PinTLS, startTLS[port].direct); err != nil {
			t.Errorf("pin tls on the direct port: %v", err)
		}
	}
}

// A stored service with a pin of a newer version is there; policy denies what it doesn't know.
func TestStoredPin(t *testing.T) {
	s := world(t)
	v := *s.Service("sql")
	v.Pin = "newer"
	objects := []Object{&v}
	for o := range s.Objects() {
		if w, ok := o.(*Service); !ok || w.ID != v.ID {
			objects = append(objects, o)
		}
	}
	loaded, err := Load(s.Revision(), slices.Values(objects))
	if err != nil || loaded.Service("sql").Pin != "newer" {
		t.Fatalf("error %v", err)
	}
	if _, _, err := loaded.Apply(noon, PutService{Service: v}); !errors.Is(err, ErrInvalid) {
		t.Errorf("written again: %v", err)
	}
}
