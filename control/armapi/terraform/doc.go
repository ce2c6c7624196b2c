// Package terraform holds the test of the control API with the SDK that Terraform's provider for Azure is
// made of. It is a package of its own because that SDK takes long to build.
package terraform
