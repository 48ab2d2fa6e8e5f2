internal import Machine
internal import VMCore
internal import Virtio

/// A run's virtio devices: made once, for all lives of the guest. Between two of them each is reset, as by its driver.
final class GuestDevices: Sendable {
    /// In the order in which the guest finds them: disks first, so that the first one is `vda` whatever else there is.
    let all: [any VirtioDevice]
    /// The one among them that has the guest give up memory.
    let balloon: BalloonDevice?
    /// The console's named ports, where there are some.
    let ports: GuestPorts?

    /// Opens the disks, networks, sockets and files.
    ///
    /// - Parameter notice: takes a line about what happens to them later on.
    /// - Throws: `RunError`, one line that names the thing, the reason and the way out. Nothing is left behind.
    init(
        _ list: DeviceList, events: EventLoop, clock: any MonotonicClock,
        notice: @escaping @Sendable (String) -> Void
    ) throws(RunError) {
        var devices: [any VirtioDevice] = []
        for disk in list.disks {
            devices.append(Self.block(disk, image: try DiskImages.open(disk), events: events, clock: clock))
        }
        for network in list.networks {
            devices.append(try Self.network(network, events: events, clock: clock, notice: notice))
        }
        for share in list.shares { devices.append(try Self.share(share, events: events, clock: clock)) }
        if let sockets = list.sockets {
            do throws(SocketError) {
                var limits = SocketDevice.Limits()
                limits.servicePeers = 0...1023
                devices.append(
                    try SocketDevice(
                        guestCID: sockets.guest, path: sockets.path, services: sockets.services, events: events, clock: clock,
                        limits: limits))
            } catch {
                throw RunError(exitStatus: Self.status(of: error), description: error.description)
            }
        }
        balloon = list.balloon.map { _ in BalloonDevice(events: events, clock: clock) }
        if let balloon {
            balloon.setTarget(bytes: list.balloon ?? 0)
            devices.append(balloon)
        }
        ports = list.ports.isEmpty ? nil : try GuestPorts(list.ports, loop: events, clock: clock)
        if let ports { devices.append(ports.device) }
        // A system that starts from a disk asks for random numbers before it has any of its own.
        if !devices.isEmpty { devices.append(EntropyDevice(events: events)) }
        all = devices
    }

    private static func block(
        _ disk: DiskConfiguration, image: any BlockImage, events: any EventService, clock: any MonotonicClock
    ) -> BlockDevice {
        var options = BlockOptions()
        options.queueCount = disk.queues
        options.serial = disk.serial ?? ""
        options.limits = RateLimits(bytes: disk.bandwidth?.rate, operations: disk.operations?.rate)
        return BlockDevice(image: image, options: options, events: events, clock: clock)
    }

    private static func network(
        _ network: NetworkConfiguration, events: any EventService, clock: any MonotonicClock,
        notice: @escaping @Sendable (String) -> Void
    ) throws(RunError) -> NetworkDevice {
        let links: [any NetworkBackend]
        var mtu: UInt16?
        switch network.kind {
        case .user:
            mtu = PasstBackend.mtu
            do throws(PasstError) { links = [try PasstBackend(forwards: network.forwards, onEnd: notice)] } catch {
                let status: ExitStatus =
                    switch error {
                    case .notInstalled: .unavailable
                    case .portUnavailable: .badConfiguration
                    case .host: .unavailable
                    }
                throw RunError(exitStatus: status, description: "--net user: \(error)")
            }
        case .tap(let name):
            do throws(TapError) { links = try TapBackend.queues(network.queues, name: name) } catch {
                let status: ExitStatus =
                    switch error {
                    case .noTapDriver: .unavailable
                    case .doesNotExist: .noSuchFile
                    case .notPermitted: .notPermitted
                    default: .badConfiguration
                    }
                throw RunError(exitStatus: status, description: "--net tap:\(name): \(error)")
            }
        }
        let limits = RateLimits(bytes: network.bandwidth?.rate, operations: network.operations?.rate)
        return NetworkDevice(
            links: links, address: network.address ?? .random(), mtu: mtu, transmitLimits: limits, receiveLimits: limits,
            events: events, clock: clock)
    }

    private static func share(
        _ share: SharedDirectoryDevice, events: any EventService, clock: any MonotonicClock
    ) throws(RunError) -> FileSystemDevice {
        HostLimits.raiseDescriptors()
        var options = ShareOptions()
        options.caching = share.caching
        options.ownership = share.ownership
        options.hasExtendedAttributes = share.hasExtendedAttributes
        do throws(ShareError) {
            return try FileSystemDevice(
                directory: share.path, tag: share.tag, isReadOnly: share.isReadOnly, options: options, events: events, clock: clock)
        } catch {
            let status: ExitStatus =
                switch error {
                case .missing: .noSuchFile
                case .notPermitted: .notPermitted
                default: .badConfiguration
                }
            throw RunError(exitStatus: status, description: error.description)
        }
    }

    static func status(of error: SocketError) -> ExitStatus {
        switch error {
        case .host(_, _, let code): RunError.status(ofFile: code)
        default: .badConfiguration
        }
    }
}

extension RateText {
    var rate: Rate { Rate(perSecond: perSecond, burst: burst) }
}
