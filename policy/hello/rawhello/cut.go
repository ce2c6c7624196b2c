package rawhello

import "io"

// Records puts handshake bytes into records with bodies of these sizes, one after the other; zero is an empty record.
// What is left then goes into records as large as they may be. Without sizes that is all of it.
func Records(b []byte, sizes ...int) []byte { return records(1, b, sizes) }

// records writes records of version 3.minor: a first hello says TLS 1.0 and all others 1.2 (RFC 8446 section 5.1).
func records(minor byte, b []byte, sizes []int) (out []byte) {
	for len(b) > 0 || len(sizes) > 0 {
		n := min(longestPlainBytes, len(b))
		if len(sizes) > 0 {
			n, sizes = min(max(sizes[0], 0), len(b)), sizes[1:]
		}
		out = append(append(out, recordHandshake, 3, minor, byte(n>>8), byte(n)), b[:n]...)
		b = b[n:]
	}
	return out
}

// Every returns enough sizes of n bytes for b, for [Records] and [Write].
func Every(n int, b []byte) []int {
	sizes := make([]int, 0, len(b)/n+1)
	for range (len(b) + n - 1) / n {
		sizes = append(sizes, n)
	}
	return sizes
}

// Write writes b in pieces of these sizes and the rest in one. Each piece is one write, which is a segment of its own
// on a TCP connection that doesn't wait for more, as those of package net don't.
func Write(w io.Writer, b []byte, sizes ...int) error {
	for len(b) > 0 {
		n := len(b)
		if len(sizes) > 0 {
			n, sizes = min(max(sizes[0], 1), n), sizes[1:]
		}
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
