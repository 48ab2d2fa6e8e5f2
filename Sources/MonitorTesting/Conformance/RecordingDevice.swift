internal import Synchronization
public import VMCore

/// One access that reached a device.
public struct BusAccess: Hashable, Sendable, CustomStringConvertible {
    public var isWrite: Bool
    public var offset: UInt64
    public var width: AccessWidth
    /// What was written, or answered.
    public var value: UInt64

    public init(write offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        self.isWrite = true
        self.offset = offset
        self.width = width
        self.value = value
    }

    public init(read offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        self.isWrite = false
        self.offset = offset
        self.width = width
        self.value = value
    }

    public var description: String {
        "\(isWrite ? "write" : "read") +\(offset) \(width) 0x\(String(value, radix: 16))"
    }
}

/// A device that remembers every access and answers reads as it is told to.
public final class RecordingDevice: BusDevice {
    private let log = Mutex<[BusAccess]>([])
    private let answer: @Sendable (_ offset: UInt64, _ width: AccessWidth) -> UInt64
    private let onWrite: @Sendable (BusAccess) -> Void

    /// - Parameter onWrite: called on the vCPU's thread, after the access is noted and with no lock held.
    public init(
        answer: @escaping @Sendable (_ offset: UInt64, _ width: AccessWidth) -> UInt64 = { _, width in width.mask },
        onWrite: @escaping @Sendable (BusAccess) -> Void = { _ in }
    ) {
        self.answer = answer
        self.onWrite = onWrite
    }

    public var accesses: [BusAccess] { log.withLock { $0 } }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        let value = answer(offset, width) & width.mask
        log.withLock { $0.append(BusAccess(read: offset, width, value)) }
        return value
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let access = BusAccess(write: offset, width, value)
        log.withLock { $0.append(access) }
        onWrite(access)
    }
}

/// Memory behind the bus: what an engine may split into accesses of any width comes together again here.
public final class ByteDevice: BusDevice {
    private let bytes: Mutex<[UInt8]>

    public init(_ bytes: [UInt8]) { self.bytes = Mutex(bytes) }

    public var contents: [UInt8] { bytes.withLock { $0 } }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        bytes.withLock { bytes in
            var value: UInt64 = 0
            for index in 0..<width.bytes where offset &+ index < UInt64(bytes.count) {
                value |= UInt64(bytes[Int(offset &+ index)]) << (8 &* index)
            }
            return value
        }
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        bytes.withLock { bytes in
            for index in 0..<width.bytes where offset &+ index < UInt64(bytes.count) {
                bytes[Int(offset &+ index)] = UInt8(truncatingIfNeeded: value >> (8 &* index))
            }
        }
    }
}

/// A number that threads share.
final class Counter: Sendable {
    private let value = Atomic<UInt64>(0)
    var current: UInt64 { value.load(ordering: .sequentiallyConsistent) }
    /// Adds, and returns the sum.
    func next(by step: UInt64 = 1) -> UInt64 { value.wrappingAdd(step, ordering: .sequentiallyConsistent).newValue }
    func set(_ new: UInt64) { value.store(new, ordering: .sequentiallyConsistent) }
}

/// A handler that is chosen after the device that calls it is made.
final class Relay: Sendable {
    private let handler = Mutex<@Sendable (BusAccess) -> Void>({ _ in })
    func set(_ new: @escaping @Sendable (BusAccess) -> Void) { handler.withLock { $0 = new } }
    func call(_ access: BusAccess) { handler.withLock { $0 }(access) }
}
