internal import CGuestAgent

/// The guest's agent: a static program for Linux on x86-64, PID 1 of the guest of `hover exec`, from guests/agent.
public enum GuestAgent {
    /// Its bytes, as `guests/build agent` makes them.
    public static var image: [UInt8] {
        unsafe [UInt8](UnsafeRawBufferPointer(start: cguest_agent_image(), count: Int(cguest_agent_size())))
    }
}
