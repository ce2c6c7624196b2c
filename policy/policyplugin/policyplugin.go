// Package policyplugin is for people who write a policy program: implement [Policy] and call Serve.
package policyplugin
