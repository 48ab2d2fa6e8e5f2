internal import Synchronization
public import VMCore

/// The debug console of Bochs and QEMU, port E9h: each byte written is a character printed, with no set-up at all.
///
/// A read gives E9h, by which a guest knows that it is there. The port has no status to wait on, so a
/// character that the sink has no room for is lost, and counted: the guest is never held up and nothing grows.
/// Source: [BOCHS-E9].
public final class DebugConsole: BusDevice {
    private let sink: any ByteSink
    private let lost = Atomic<UInt64>(0)

    /// - Parameter sink: may be shared with other writers: its space handler is left alone.
    public init(sink: any ByteSink) { self.sink = sink }

    /// Characters that the sink had no room for.
    public var lostCount: UInt64 { lost.load(ordering: .relaxed) }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 { 0xE9 }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let character = UInt8(truncatingIfNeeded: value)
        let taken = unsafe withUnsafeBytes(of: character) { unsafe sink.write($0) }
        if taken == 0 { lost.wrappingAdd(1, ordering: .relaxed) }
    }
}
