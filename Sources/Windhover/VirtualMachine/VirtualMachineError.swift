/// Why something cannot be done with a virtual machine now.
public enum VirtualMachineError: Error, Hashable, Sendable, CustomStringConvertible {
    /// It is in a state in which that has no meaning.
    case wrongState(VirtualMachine.State)
    /// It was stopped while that was under way.
    case stopped
    /// What was waited for did not come in time.
    case timedOut(waitingFor: String)
    /// The guest ended before what was waited for came.
    case consoleEnded(waitingFor: String)
    /// Its memory stays as it is.
    case noBalloon

    public var description: String {
        switch self {
        case .wrongState(let state): "the virtual machine is \(state.rawValue): that cannot be done now"
        case .stopped: "the virtual machine was stopped meanwhile"
        case .timedOut(let what): "\(what) did not come in time"
        case .consoleEnded(let what): "the guest ended before \(what) came"
        case .noBalloon: "the virtual machine has no balloon: set hasBalloon in its configuration"
        }
    }
}
