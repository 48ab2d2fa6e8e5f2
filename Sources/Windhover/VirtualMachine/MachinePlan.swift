internal import Machine
internal import VMCore
internal import Virtio

/// What a machine is made of, however it came to be asked for.
struct MachinePlan: Sendable {
    var memory: MemorySize
    var hugePages = HugePages.none
    var cpus = 1
    var engine = EngineChoice.auto
    var interruptChips = InterruptChips.kernel
    var clock = ClockChoice.host
    var transport = VirtioTransport.pci
    var devices = DeviceList()
}

/// The virtio devices of a machine.
struct DeviceList: Sendable {
    var disks: [DiskConfiguration] = []
    var networks: [NetworkConfiguration] = []
    var shares: [SharedDirectoryDevice] = []
    var sockets: SocketEndpoints?
    /// Bytes that the guest's balloon is to hold from the start; nil for no balloon.
    var balloon: UInt64?
    /// Named byte streams.
    var ports: [PortConfiguration] = []

    /// A source of randomness comes with any of them.
    var isEmpty: Bool { disks.isEmpty && networks.isEmpty && shares.isEmpty && sockets == nil && balloon == nil && ports.isEmpty }
}

/// A directory of the host's, and what the guest mounts it by.
struct SharedDirectoryDevice: Hashable, Sendable {
    var path: String
    var tag: String
    var isReadOnly: Bool
    var caching = ShareCaching.auto
    var ownership = ShareOwnership.userIsRoot
    var hasExtendedAttributes = true
}

/// The host's ends of the guest's sockets.
struct SocketEndpoints: Sendable {
    /// The guest's context identifier.
    var guest: UInt32 = 3
    /// The Unix socket that programs of the host connect to.
    var path: String?
    /// Ports that this process serves itself.
    var services: [UInt32: SocketService] = [:]
}

extension RunConfiguration {
    /// As the machine takes it.
    var plan: MachinePlan {
        MachinePlan(
            memory: memory, hugePages: hugePages, cpus: cpus, engine: engine, interruptChips: interruptChips, clock: clock,
            transport: transport,
            devices: DeviceList(
                disks: disks, networks: networks,
                shares: zip(shares, shareTags).map { share, tag in
                    SharedDirectoryDevice(path: share.path, tag: tag, isReadOnly: share.isReadOnly, caching: share.caching)
                },
                sockets: socket.map { SocketEndpoints(guest: $0.guest, path: $0.path) },
                balloon: hasBalloon ? memory.bytes &- memoryTarget.bytes : nil, ports: ports))
    }
}
