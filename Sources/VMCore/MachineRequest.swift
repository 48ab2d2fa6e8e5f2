/// What a device asks of the whole machine on the guest's behalf.
public enum MachineRequest: Hashable, Sendable {
    /// ACPI S5, or another power-off port.
    case powerOff
    /// A reset port, the keyboard controller's pulse, the FADT's reset register.
    case reset
    /// The debug-exit port was written with this value.
    case debugExit(UInt32)
}

/// Takes those requests. Called with a device's lock held: it notes the request and kicks, and never calls back.
public protocol MachineControl: AnyObject, Sendable {
    func request(_ request: MachineRequest)
}
