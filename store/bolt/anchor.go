package bolt

import (
	"fmt"

	"github.com/postern-link/postern/store"
)

// anchor is written with every commit, in its transaction: what the file must add up to.
type anchor struct {
	Format   int         `json:"format"`
	File     string      `json:"file"` // 128 random bits, made with the file: tells two files apart
	Revision uint64      `json:"revision"`
	Objects  store.Set   `json:"objects"`
	Audit    store.Chain `json:"audit"` // after the entry of Revision; each revision has one
}

const anchorFormat = 1

func decodeAnchor(b []byte) (anchor, error) {
	var a anchor
	if err := store.Unseal(b, &a); err != nil {
		return a, fmt.Errorf("revision anchor: %w", err)
	}
	if a.Format != anchorFormat {
		return a, fmt.Errorf("%w: format %d, this program knows %d", store.ErrForeign, a.Format, anchorFormat)
	}
	return a, nil
}
