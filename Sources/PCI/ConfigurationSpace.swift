public import VMCore

/// The 256 bytes by which a function is found and set up, as a chip: bytes, and for each bit whether a write changes it.
/// ```
/// 00 device      vendor      10-24 base address registers
/// 04 status      command     2C subsystem   subsystem vendor
/// 08 class code  revision    34 capabilities pointer
/// 0C header type, cache line 3C interrupt pin, interrupt line
/// ```
/// Not emulated: ports (no base address register is one), an expansion ROM, power management, parity and its status bits,
/// the 3840 bytes that PCI Express adds: they read as zero, which is an empty list of extended capabilities.
///
/// Source: [PCI3.0 §6.1], [PCI3.0 §6.2].
public struct ConfigurationSpace: Sendable {
    public static let length = 256

    enum Register {
        static let command = 0x04, status = 0x06, baseAddresses = 0x10, capabilities = 0x34
        static let interruptLine = 0x3C, interruptPin = 0x3D
    }

    /// Bits of the command register. Source: [PCI3.0 §6.2.2].
    enum Command {
        static let memory: UInt16 = 1 << 1, busMaster: UInt16 = 1 << 2, interruptDisable: UInt16 = 1 << 10
    }

    /// Bits of the status register. Source: [PCI3.0 §6.2.3].
    enum Status {
        static let interrupt: UInt8 = 1 << 3, capabilities: UInt8 = 1 << 4
    }

    private var bytes = [UInt8](repeating: 0, count: length)
    private var writable = [UInt8](repeating: 0, count: length)
    /// In ascending order of their index.
    public let bars: [BaseAddressRegister]
    /// Where the next capability goes, and the byte that is to point at it.
    private var free = 0x40
    private var lastLink = Register.capabilities

    /// - Parameter hasInterruptPin: whether it may use INTA.
    public init(_ identity: PCIIdentity, bars: [BaseAddressRegister], hasInterruptPin: Bool) {
        self.bars = bars.sorted { $0.index < $1.index }
        store(identity.vendor, at: 0x00)
        store(identity.device, at: 0x02)
        bytes[0x08] = identity.revision
        bytes[0x09] = UInt8(truncatingIfNeeded: identity.classCode)
        store(UInt16(truncatingIfNeeded: identity.classCode >> 8), at: 0x0A)
        store(identity.subsystemVendor, at: 0x2C)
        store(identity.subsystem, at: 0x2E)
        bytes[Register.interruptPin] = hasInterruptPin ? 1 : 0
        // No line yet: what a PC's firmware leaves in place of a number. Source: [PCI3.0 §6.2.4].
        bytes[Register.interruptLine] = hasInterruptPin ? 0xFF : 0
        writable[Register.interruptLine] = 0xFF
        writable[0x0C] = 0xFF  // cache line size: kept for whoever looks, used by nobody
        var command = Command.busMaster | Command.interruptDisable
        if !bars.isEmpty { command |= Command.memory }
        writable[Register.command] = UInt8(truncatingIfNeeded: command)
        writable[Register.command + 1] = UInt8(truncatingIfNeeded: command >> 8)
        var taken = 0
        for bar in self.bars {
            precondition(taken & (bar.is64Bit ? 3 : 1) << bar.index == 0, "a base address register is there once")
            taken |= (bar.is64Bit ? 3 : 1) << bar.index
            let place = Self.place(of: bar)
            bytes[place] = (bar.is64Bit ? 4 : 0) | (bar.isPrefetchable ? 8 : 0)
            // All ones written read back as the size: the bits below it stay zero. Source: [PCI3.0 §6.2.5.1].
            let mask = ~(bar.size &- 1)
            for index in 0..<(bar.is64Bit ? 8 : 4) {
                writable[place + index] = UInt8(truncatingIfNeeded: mask >> UInt64(8 * index))
            }
        }
    }

    private static func place(of bar: BaseAddressRegister) -> Int { Register.baseAddresses + 4 * bar.index }

    private mutating func store(_ value: UInt16, at offset: Int) {
        bytes[offset] = UInt8(truncatingIfNeeded: value)
        bytes[offset + 1] = UInt8(truncatingIfNeeded: value >> 8)
    }

    /// Adds a capability at the list's end.
    /// - Returns: where its identifier is.
    @discardableResult
    public mutating func addCapability(_ capability: PCICapability) -> Int {
        let place = free
        precondition(place + 2 + capability.body.count <= Self.length, "the capabilities do not fit")
        bytes[lastLink] = UInt8(place)
        lastLink = place + 1
        bytes[Register.status] |= Status.capabilities
        bytes[place] = capability.identifier
        for (index, byte) in capability.body.enumerated() { bytes[place + 2 + index] = byte }
        for (index, bits) in capability.writable.enumerated() { writable[place + 2 + index] = bits }
        free = (place + 2 + capability.body.count + 3) & ~3
        return place
    }

    // MARK: Accesses

    /// Whether an access lies in these bytes; the rest of the 4 KiB is not there.
    private static func holds(_ offset: UInt16, _ width: AccessWidth) -> Bool {
        UInt64(offset) &+ width.bytes <= UInt64(length)
    }

    /// Any width at any offset. What is not there reads as zero.
    public func read(offset: UInt16, width: AccessWidth) -> UInt64 {
        guard Self.holds(offset, width) else { return 0 }
        var value: UInt64 = 0
        for index in 0..<Int(width.rawValue) { value |= UInt64(bytes[Int(offset) &+ index]) << UInt64(8 &* index) }
        return value
    }

    /// Any width at any offset: changes the bits that a write may change.
    public mutating func write(offset: UInt16, width: AccessWidth, value: UInt64) {
        guard Self.holds(offset, width) else { return }
        for index in 0..<Int(width.rawValue) {
            let place = Int(offset) &+ index
            let byte = UInt8(truncatingIfNeeded: value >> UInt64(8 &* index))
            bytes[place] = bytes[place] & ~writable[place] | byte & writable[place]
        }
    }

    /// Sets bytes whatever may be written: the function's own word.
    public mutating func set(_ values: [UInt8], at offset: Int) {
        precondition(offset >= 0 && offset + values.count <= Self.length)
        for (index, value) in values.enumerated() { bytes[offset + index] = value }
    }

    // MARK: What the registers say

    var command: UInt16 { UInt16(bytes[Register.command]) | UInt16(bytes[Register.command + 1]) << 8 }

    var isInterruptDisabled: Bool { command & Command.interruptDisable != 0 }

    mutating func setInterruptStatus(_ isPending: Bool) {
        let rest = bytes[Register.status] & ~Status.interrupt
        bytes[Register.status] = isPending ? rest | Status.interrupt : rest
    }

    /// Where each region is; nil while memory accesses are not decoded.
    var decoded: [DecodedRegion]? {
        guard command & Command.memory != 0 else { return nil }
        return bars.map { DecodedRegion(bar: $0.index, base: address(of: $0), size: $0.size) }
    }

    /// A multiple of the region's size, whatever was written.
    func address(of bar: BaseAddressRegister) -> UInt64 {
        let value = read(offset: UInt16(Self.place(of: bar)), width: bar.is64Bit ? .quad : .long)
        return value & ~(bar.size &- 1)
    }

    /// Assigns an address, as firmware does, and decodes it.
    mutating func assign(_ address: UInt64, to bar: BaseAddressRegister) {
        write(offset: UInt16(Self.place(of: bar)), width: bar.is64Bit ? .quad : .long, value: address)
        write(offset: UInt16(Register.command), width: .word, value: UInt64(command | Command.memory))
    }
}

/// A region at the address that its register holds. Its last byte is within 64 bits: the address is a multiple of the size.
struct DecodedRegion: Hashable, Sendable {
    var bar: Int
    var base: UInt64
    var size: UInt64
    var last: UInt64 { base | (size &- 1) }
}
