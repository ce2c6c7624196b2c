package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
)

func TestDecoder(t *testing.T) {
	const n = 5*decoderBatch + 7
	var d Decoder
	for i := range n {
		o := &link.Document{Type: "group", ID: link.ID(fmt.Sprintf("s/g%05d", i))}
		d.Add(o.Kind(), o.Key(), encode(t, o))
	}
	objects, err := d.Finish()
	if err != nil || len(objects) != n {
		t.Fatalf("%d objects, %v", len(objects), err)
	}
	if !slices.IsSortedFunc(objects, func(a, b link.Object) int { return strings.Compare(a.Key(), b.Key()) }) {
		t.Error("the objects are in another order than their records")
	}
	if objects, err := new(Decoder).Finish(); err != nil || len(objects) != 0 {
		t.Errorf("of nothing: %v, %v", objects, err)
	}
}

// S04: the first record that is damaged is the one that is told, on however many processors.
func TestDecoderDamage(t *testing.T) {
	var d Decoder
	for i := range 3 * decoderBatch {
		o := &link.Document{Type: "group", ID: link.ID(fmt.Sprintf("s/g%05d", i))}
		rec := encode(t, o)
		if i == decoderBatch+3 || i == 2*decoderBatch+1 {
			rec[len(rec)-2] ^= 1
		}
		d.Add(o.Kind(), o.Key(), rec)
	}
	_, err := d.Finish()
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprintf("g%05d", decoderBatch+3)) {
		t.Errorf("error %v", err)
	}
}
