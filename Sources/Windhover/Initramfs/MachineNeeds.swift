/// What of a machine the guest's kernel must have drivers for.
public struct MachineNeeds: Hashable, Sendable {
    public var transport: VirtioTransport
    /// The socket by which the agent and the host speak.
    public var hasSocket = true
    /// Directories of the host's.
    public var hasShares = false
    /// A root that keeps what is written to it in memory.
    public var hasOverlay = false
    public var hasNetwork = false
    public var hasDisks = false
    /// The types of the file systems on disks that the guest is to mount, as `mount -t` names them: each is needed.
    public var fileSystems: [String] = []
    /// Types that a disk may turn out to have: taken along where they are modules of this kernel.
    public var possibleFileSystems: [String] = []
    /// Devices that a guest does without.
    public var hasBalloon = false
    public var hasEntropy = true

    public init(transport: VirtioTransport) { self.transport = transport }

    /// A module that a machine has use for.
    struct Wanted: Hashable {
        var module: String
        /// What a kernel without it cannot do; nil for what the guest does without.
        var purpose: String?
        /// The option that has a kernel's build make it.
        var option: String?
    }

    /// In the order in which they are to be loaded: how devices are reached, what others wait for, then the rest.
    var wanted: [Wanted] {
        var wanted = [
            transport == .pci
                ? Wanted(module: "virtio_pci", purpose: "its devices", option: "CONFIG_VIRTIO_PCI")
                : Wanted(module: "virtio_mmio", purpose: "its devices", option: "CONFIG_VIRTIO_MMIO")
        ]
        // Whoever asks for random numbers at the start waits until there are some.
        if hasEntropy { wanted.append(Wanted(module: "virtio_rng", purpose: nil, option: "CONFIG_HW_RANDOM_VIRTIO")) }
        if hasSocket {
            wanted.append(
                Wanted(
                    module: "vmw_vsock_virtio_transport", purpose: "the connection to the host",
                    option: "CONFIG_VIRTIO_VSOCKETS"))
        }
        if hasShares { wanted.append(Wanted(module: "virtiofs", purpose: "shared directories", option: "CONFIG_VIRTIO_FS")) }
        if hasOverlay {
            wanted.append(Wanted(module: "overlay", purpose: "writes that stay in memory", option: "CONFIG_OVERLAY_FS"))
        }
        if hasDisks { wanted.append(Wanted(module: "virtio_blk", purpose: "disks", option: "CONFIG_VIRTIO_BLK")) }
        for type in fileSystems {
            let module = Self.module(ofFileSystem: type)
            wanted.append(
                Wanted(
                    module: module, purpose: "file systems of type \(type)",
                    option: module == "isofs" ? "CONFIG_ISO9660_FS" : "CONFIG_\(module.uppercased())_FS"))
        }
        for type in possibleFileSystems where !fileSystems.contains(type) {
            wanted.append(Wanted(module: Self.module(ofFileSystem: type), purpose: nil, option: nil))
        }
        if hasNetwork {
            wanted.append(Wanted(module: "virtio_net", purpose: "the network", option: "CONFIG_VIRTIO_NET"))
            // Raw packets, which DHCP begins with; a module in few kernels.
            wanted.append(Wanted(module: "af_packet", purpose: nil, option: "CONFIG_PACKET"))
        }
        if hasBalloon { wanted.append(Wanted(module: "virtio_balloon", purpose: nil, option: "CONFIG_VIRTIO_BALLOON")) }
        return wanted
    }

    private static func module(ofFileSystem type: String) -> String { type == "iso9660" ? "isofs" : KernelModule.name(ofFile: type) }
}
