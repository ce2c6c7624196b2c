// Postern is Private Link for any network: it gives the services of a provider a private address
// inside the networks of a consumer. See README.md; the parts are described in package coremain.
package main

import "github.com/postern-link/postern/coremain"

func main() { coremain.Run() }
