package hello

// Answer is what the target's first handshake message is.
type Answer int32

// The answers.
const (
	Unknown Answer = iota // not enough of it has come
	Retry                 // a HelloRetryRequest: the client sends a second hello
	Other                 // anything else: there is no second hello in clear
)

// retryRandom is the random of a ServerHello that is a HelloRetryRequest (RFC 8446, section 4.1.3).
var retryRandom = [32]byte{
	0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
	0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
}

// Where the random of a ServerHello begins and ends in the message: behind header and legacy_version.
const (
	randomBegins = messageHeader + 2
	randomEnds   = randomBegins + len(retryRandom)
)

// Watcher finds out what a target's first handshake message is, from the bytes that the target sends.
// It copies none of them. The zero Watcher is ready.
//
// What isn't TLS is [Other]. In front of the message, what a client passes over is passed over: warnings, by which a
// server of the time before TLS 1.3 tells that it doesn't know the name, and change_cipher_spec (RFC 8446, section 5),
// in records of whatever version. After any other alert nothing follows.
type Watcher struct {
	answer Answer
	header [recordHeader]byte
	begun  int // bytes of header that have come
	left   int // bytes of the record that haven't; 0: its header is next
	taken  int // bytes of the handshake message that have come
	alert  int // bytes of the alert that have come
}

// Watch looks at the next bytes of the target, and returns what is known now. From the first answer
// that isn't [Unknown] on, it stays.
func (w *Watcher) Watch(b []byte) Answer {
	for len(b) > 0 && w.answer == Unknown {
		c := b[0]
		b = b[1:]
		if w.left == 0 {
			w.begins(c)
			continue
		}
		w.left--
		switch w.header[0] {
		case recordAlert:
			w.alerts(c)
		case recordCipherSpec:
			if c != 1 {
				w.answer = Other
			}
		default:
			w.message(c)
		}
	}
	return w.answer
}

// begins takes a byte of a record's header.
func (w *Watcher) begins(c byte) {
	w.header[w.begun] = c
	w.begun++
	kind := w.header[0]
	switch {
	case kind != recordHandshake && (w.taken > 0 || kind != recordAlert && kind != recordCipherSpec):
		w.answer = Other
	case w.begun < recordHeader:
	default:
		w.left, w.begun, w.alert = int(w.header[3])<<8|int(w.header[4]), 0, 0
		if w.left > maxRecord || kind == recordAlert && w.left != 2 || kind == recordCipherSpec && w.left != 1 {
			w.answer = Other
		}
	}
}

// alerts takes a byte of an alert: its level, of which 1 is a warning, or its description, of which 0 says
// that the target ends (RFC 8446, section 6).
func (w *Watcher) alerts(c byte) {
	if w.alert == 0 && c != 1 || w.alert == 1 && c == 0 {
		w.answer = Other
	}
	w.alert++
}

// message takes a byte of the handshake message.
func (w *Watcher) message(c byte) {
	i := w.taken
	w.taken++
	switch {
	case i == 0 && c != serverHello, i >= randomBegins && c != retryRandom[i-randomBegins]:
		w.answer = Other
	case w.taken == randomEnds:
		w.answer = Retry
	}
}
