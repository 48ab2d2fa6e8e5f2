internal import Synchronization
internal import VMCore

/// Why a bus cannot be built as asked: our own configuration is wrong.
public enum PCIError: Error, Hashable, CustomStringConvertible {
    case tooManyFunctions(count: Int)
    /// Regions take more than the window has.
    case windowFull(size: UInt64)
    /// A window that wraps, or reaches past 4 GiB.
    case badWindow(base: UInt64, size: UInt64)

    public var description: String {
        switch self {
        case .tooManyFunctions(let count): "\(count) PCI devices, and \(PCIHostBridge.deviceLimit - 1) are the most"
        case .windowFull(let size): "the regions of the PCI devices do not fit a window of \(size) bytes"
        case .badWindow(let base, let size): "\(size) bytes at \(GuestAddress(base)) are no window for PCI devices"
        }
    }
}

/// Where a bus's regions are decoded: guest physical addresses below 4 GiB.
public struct PCIWindow: Hashable, Sendable {
    public let base: UInt64
    public let size: UInt64
    public var last: UInt64 { base &+ (size &- 1) }

    public init(base: UInt64, size: UInt64) throws(PCIError) {
        let (last, overflow) = base.addingReportingOverflow(size &- 1)
        guard size > 0, !overflow, last <= 0xFFFF_FFFF else { throw .badWindow(base: base, size: size) }
        self.base = base
        self.size = size
    }
}

/// A host bridge and the one bus behind it: the bridge itself as device 0, and up to 31 devices of one function each.
///
/// It does what firmware does too, for there is none: every region has an address in the window, and is decoded, from the
/// start. Linux keeps addresses that are assigned and enabled.
///
/// Lock order: updates, then a function's configuration; the decoded map is a leaf. None of the bridge's is held while a
/// function's region or a function's own configuration handler runs.
///
/// Not emulated: further buses, devices of several functions, ports, hot plugging, error reporting.
///
/// Source: [PCI3.0 §3.2.2.3], [PCI3.0 §6].
public final class PCIHostBridge: Sendable {
    /// Devices of a bus, the bridge's own included.
    public static let deviceLimit = 32

    /// By device number; the bridge is the first.
    public let functions: [any PCIFunction]
    public let window: PCIWindow

    private let decoded: Mutex<DecodeMap>
    /// What the observer has been told, by device number.
    private let updates: Mutex<[DoorbellRange?]>
    private let observer: (any DoorbellObserver)?

    /// - Parameters:
    ///   - devices: device 1 and up.
    ///   - window: where regions get addresses.
    ///   - observer: hears of doorbells, of the first addresses too: before this returns.
    public init(
        _ devices: [any PCIFunction], window: PCIWindow, observer: (any DoorbellObserver)? = nil
    ) throws(PCIError) {
        guard devices.count < Self.deviceLimit else { throw .tooManyFunctions(count: devices.count) }
        functions = [HostBridgeFunction()] + devices
        self.window = window
        self.observer = observer
        decoded = Mutex(DecodeMap([]))
        updates = Mutex([DoorbellRange?](repeating: nil, count: functions.count))
        try assignAddresses()
        update()
    }

    /// The largest regions first, each aligned to its size: no gap is wider than need be.
    private func assignAddresses() throws(PCIError) {
        var regions: [(function: any PCIFunction, bar: BaseAddressRegister)] = []
        for function in functions { regions += function.configuration.bars.map { (function, $0) } }
        var next = window.base
        // Sorted by hand: the library's sort need not keep the order of equals.
        var sizes = Array(Set(regions.map(\.bar.size))).sorted()
        while let size = sizes.popLast() {
            for region in regions where region.bar.size == size {
                let (sum, overflow) = next.addingReportingOverflow(size &- 1)
                let base = sum & ~(size &- 1)
                guard !overflow, base >= next, base <= window.last, size &- 1 <= window.last &- base else {
                    throw .windowFull(size: window.size)
                }
                region.function.configuration.assign(base, to: region.bar)
                next = base &+ size
            }
        }
    }

    // MARK: Configuration space

    /// The function at a place of the bus. A place that nobody answers for reads as ones. Source: [PCI3.0 §6.1].
    private func function(_ device: Int) -> (any PCIFunction)? {
        functions.indices.contains(device) ? functions[device] : nil
    }

    func readConfiguration(device: Int, offset: UInt16, width: AccessWidth) -> UInt64 {
        function(device)?.readConfiguration(offset: offset, width: width) ?? width.mask
    }

    func writeConfiguration(device: Int, offset: UInt16, width: AccessWidth, value: UInt64) {
        guard let function = function(device) else { return }
        if function.writeConfiguration(offset: offset, width: width, value: value) { update() }
    }

    /// Makes the decoded map what the registers say, and tells the observer what that changes.
    private func update() {
        updates.withLock { told in
            var entries: [DecodeMap.Entry] = []
            for (device, function) in functions.enumerated() {
                let configuration = function.configuration
                for region in configuration.decoded ?? [] where region.base <= window.last && region.last >= window.base {
                    entries.append(
                        .init(
                            base: region.base, last: region.last, device: device, bar: region.bar,
                            isTable: region.bar == configuration.messageBAR))
                }
            }
            let map = DecodeMap(entries)
            decoded.withLock { $0 = map }
            guard let observer else { return }
            for (device, function) in functions.enumerated() {
                guard let region = function.doorbells else { continue }
                let place = doorbells(region, device, map)
                guard place != told[device] else { continue }
                let old = told[device]
                told[device] = place
                observer.doorbellsMoved(of: function, device: device, from: old, to: place)
            }
        }
    }

    /// Doorbells that are all in the window, where no other region is: those of which a write reaches the function and nothing
    /// else, be it another function or what the machine has outside the window.
    private func doorbells(_ region: DoorbellRegion, _ device: Int, _ map: DecodeMap) -> DoorbellRange? {
        guard region.count > 0, region.stride > 0, let entry = map.region(of: device, bar: region.bar) else { return nil }
        let base = entry.base &+ region.offset
        let last = base &+ (region.stride &* region.count &- 1)
        guard base >= window.base, last <= window.last, base <= last, last <= entry.last,
            map.isSole(device, region.bar, from: base, to: last)
        else { return nil }
        return DoorbellRange(base: GuestAddress(base), stride: region.stride, count: region.count)
    }

    // MARK: Memory

    /// Reads at a guest physical address of the window. Where no region is decoded, ones; an access that leaves its region is
    /// taken apart.
    func readMemory(_ address: UInt64, width: AccessWidth) -> UInt64 {
        let found = decoded.withLock { $0.find(address) }
        if let found, width.bytes &- 1 <= found.last &- address {
            let function = functions[found.device]
            let offset = address &- found.base
            if found.isTable {
                return function.configuration.readTable(offset: offset, width: width)
            }
            return function.read(bar: found.bar, offset: offset, width: width)
        }
        guard let half = AccessWidth(bytes: Int(width.rawValue / 2)) else { return 0xFF }
        let low = readMemory(address, width: half) & half.mask
        return low | (readMemory(address &+ half.bytes, width: half) & half.mask) << (half.bytes &* 8)
    }

    func writeMemory(_ address: UInt64, width: AccessWidth, value: UInt64) {
        let found = decoded.withLock { $0.find(address) }
        if let found, width.bytes &- 1 <= found.last &- address {
            let function = functions[found.device]
            let offset = address &- found.base
            if found.isTable {
                return function.configuration.writeTable(offset: offset, width: width, value: value)
            }
            return function.write(bar: found.bar, offset: offset, width: width, value: value)
        }
        guard let half = AccessWidth(bytes: Int(width.rawValue / 2)) else { return }
        writeMemory(address, width: half, value: value & half.mask)
        writeMemory(address &+ half.bytes, width: half, value: value >> (half.bytes &* 8))
    }
}

/// Device 0. Its class is what makes an operating system believe in configuration mechanism #1. Its numbers are the generic
/// host bridge's, for which Linux has no quirks: with the 440FX's it would restrict transfers between devices, with those of
/// later chipsets look for their registers.
private final class HostBridgeFunction: PCIFunction {
    let configuration = FunctionConfiguration(PCIIdentity(vendor: 0x1B36, device: 0x0008, revision: 0, classCode: 0x06_00_00))
    func read(bar: Int, offset: UInt64, width: AccessWidth) -> UInt64 { width.mask }
    func write(bar: Int, offset: UInt64, width: AccessWidth, value: UInt64) {}
}
