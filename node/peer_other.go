//go:build !linux

package node

import "net"

// owners accepts as it is: where there are no policy programs nobody has to be kept out.
type owners struct{ *net.UnixListener }
