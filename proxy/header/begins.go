package header

// Longest is how many bytes [Begins] needs to be sure, whatever they are.
const Longest = len(signature)

// Starts reports whether a datagram begins as one with a PROXY header does: version 2, the only one for datagrams.
func Starts(b []byte) bool {
	return len(b) >= len(signature) && string(b[:len(signature)]) == signature
}

// Begins looks at the first bytes of a stream. It reports whether they are those of a PROXY header
// of version 1 or 2, and, while there are too few of them, whether they may still become one.
// It takes the signature alone for a header, since what follows is for the reader to judge.
func Begins(b []byte) (is, maybe bool) {
	for _, sign := range [...]string{prefixV1, signature} {
		n := min(len(b), len(sign))
		if string(b[:n]) != sign[:n] {
			continue
		}
		if n == len(sign) {
			return true, false
		}
		maybe = true
	}
	return false, maybe
}
