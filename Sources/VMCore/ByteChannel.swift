/// The host's end of a character device: where a guest's bytes go.
///
/// Bounded: it takes what fits now and says when there is room again, so that a reader that stopped
/// reading costs the guest time and the host nothing.
public protocol ByteSink: AnyObject, Sendable {
    /// Takes as many bytes as fit, without blocking.
    ///
    /// Devices call it with their lock held: it never calls the space handler, or anything else of a device's.
    /// - Returns: how many were taken, from the first on; 0 when full.
    func write(_ bytes: UnsafeRawBufferPointer) -> Int

    /// Sets who is told, on the event loop's thread and with no lock held, when a full sink has room again.
    func setSpaceHandler(_ handler: @escaping @Sendable () -> Void)
}

/// The guest's end: where the host's bytes (a keyboard's, a pipe's) go.
public protocol ByteReceiver: AnyObject, Sendable {
    /// Takes as many bytes as the device has room for, without blocking. The rest stays with the caller.
    /// - Returns: how many were taken, from the first on.
    func receive(_ bytes: UnsafeRawBufferPointer) -> Int

    /// Sets who is told, with no lock held, when a full device has room again.
    func setRoomHandler(_ handler: @escaping @Sendable () -> Void)
}
