// Postern is Private Link for any network: it gives the services of a provider a private address
// inside the networks of a consumer. See README.md; the parts are described in package coremain.
//
// Listeners speak plain TCP, CoreDNS's own ones too: Multipath TCP, Go's default, lets a connection go on by addresses that
// nobody has judged, and sandboxes and socket options don't know it.
//
//go:debug multipathtcp=0
package main

import "github.com/postern-link/postern/coremain"

func main() { coremain.Run() }
