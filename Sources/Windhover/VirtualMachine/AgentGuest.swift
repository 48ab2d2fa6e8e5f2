internal import Boot
internal import Logging
internal import Machine
internal import VMCore
internal import Virtio

/// A guest with our agent as its first process: what its machine is made of, what it boots, and what the agent is told.
struct AgentGuest: Sendable {
    var kernel: GuestKernel
    var root: ExecRoot
    /// Whether writes reach a disk that is the root.
    var writesThrough = false
    var shares: [ExecShare] = []
    var disks: [DiskConfiguration] = []
    var networks: [NetworkConfiguration] = []
    var hasBalloon = false
    var ownership = ShareOwnership.userIsRoot
    var memory: MemorySize
    var cpus = 1
    var engine = EngineChoice.auto
    var transport = VirtioTransport.pci
    /// Words for the kernel's command line.
    var append = ""
    /// Whether the kernel says no more than what matters.
    var isQuiet = true

    /// Shares with places in the guest's root. The last may be the kernel's modules, at the place where `modprobe` looks: the archive
    /// has no more of them than the machine needs. Where there is no room for it, or something else is meant to be there, it is left out.
    private var mounted: [ExecShare] {
        guard case .directory = root, case .directory(let modules) = kernel.modules, let release = kernel.release else { return shares }
        let place = "/lib/modules/\(release)"
        guard !shares.contains(where: { (place + "/").hasPrefix($0.path + "/") || $0.path.hasPrefix(place + "/") }),
            disks.count + networks.count + shares.count + 1 < RunConfiguration.maximumDevices
        else { return shares }
        return shares + [ExecShare(directory: modules, path: place, isReadOnly: true, caching: .auto)]
    }

    private static let rootTag = "root"
    private static func tag(_ index: Int) -> String { "share\(index)" }

    /// - Parameter session: hears the agent.
    func plan(_ session: AgentSession) -> MachinePlan {
        var plan = MachinePlan(memory: memory)
        plan.cpus = cpus
        plan.engine = engine
        plan.transport = transport
        plan.devices.disks = disks
        plan.devices.networks = networks
        if hasBalloon { plan.devices.balloon = 0 }
        if case .directory(let path) = root {
            plan.devices.shares = [SharedDirectoryDevice(path: path, tag: Self.rootTag, isReadOnly: true, ownership: ownership)]
            // An overlay asks its lower layer for attributes of its own at each look-up: an answer that there are none to ask for
            // spares all later questions.
            plan.devices.shares[0].hasExtendedAttributes = false
        }
        for (index, share) in mounted.enumerated() {
            plan.devices.shares.append(
                SharedDirectoryDevice(
                    path: share.directory, tag: Self.tag(index), isReadOnly: share.isReadOnly, caching: share.caching,
                    ownership: ownership))
        }
        plan.devices.sockets = SocketEndpoints(services: [
            AgentSession.controlPort: { session.acceptControl($0) }, AgentSession.streamPort: { session.acceptStream($0) },
        ])
        return plan
    }

    /// - Throws: a `ReportableError` for a kernel that lacks what this guest takes.
    func material(_ logger: Logger) throws -> BootMaterial {
        let initramfs = try kernel.initramfs(agent: GuestAgent.image, needs: needs)
        for module in initramfs.missing { logger.debug("\(module)") }
        var material = BootMaterial(
            kernel: .file(kernel.bootPath), isOurs: kernel.preparedPath != nil,
            commandLine: { isLinux in
                GuestCommandLine.text(
                    isLinux: isLinux, isOurs: isQuiet, hasPCI: transport == .pci, append: append, terminal: nil)
            },
            trace: { logger.debug("\($0)") })
        material.initrds = [.bytes(ImageBytes(initramfs.bytes, name: "the agent's archive"))]
        return material
    }

    /// What the kernel has to have.
    private var needs: MachineNeeds {
        var needs = MachineNeeds(transport: transport)
        needs.hasShares = root != .disk || !shares.isEmpty
        needs.hasOverlay = root != .disk || !writesThrough
        needs.hasDisks = !disks.isEmpty
        needs.hasNetwork = !networks.isEmpty
        needs.hasBalloon = hasBalloon
        if root == .disk { needs.possibleFileSystems = ["ext4", "xfs", "btrfs", "f2fs", "erofs", "squashfs"] }
        return needs
    }

    /// What the agent is told first.
    /// - Parameter time: nanoseconds since 1970.
    func setup(time: Int64) -> GuestSetup {
        let root: GuestSetup.Root =
            switch root {
            case .directory: .share(tag: Self.rootTag, writes: .inMemory)
            case .disk: .disk(device: "/dev/vda", type: nil, writes: writesThrough ? .through : .inMemory)
            }
        return GuestSetup(
            unixNanoseconds: time, hostname: "windhover", root: root,
            shares: mounted.enumerated().map { index, share in
                GuestSetup.Share(tag: Self.tag(index), path: share.path, isReadOnly: share.isReadOnly)
            },
            network: networks.isEmpty ? .none : .dhcp)
    }

    /// Whether anything of the host's may have been written when a command has ended.
    var writesToHost: Bool { shares.contains { !$0.isReadOnly } || !disks.isEmpty }
}
