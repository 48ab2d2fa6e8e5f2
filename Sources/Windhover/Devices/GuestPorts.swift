internal import Glibc
internal import Machine
internal import VMCore
internal import Virtio

/// A run's console device with its named ports, and what these lead to: made once, for all lives of the guest.
final class GuestPorts: Sendable {
    let device: ConsoleDevice
    private let files: [PortFile]
    private let clock: any MonotonicClock

    /// Opens the files and sockets.
    ///
    /// - Throws: `RunError`, one line that names the thing, the reason and the way out. Nothing is left behind.
    init(_ ports: [PortConfiguration], loop: EventLoop, clock: any MonotonicClock) throws(RunError) {
        var files: [PortFile] = []
        var sockets: [PortSocket?] = []
        var channels: [ConsoleChannel] = []
        for port in ports {
            switch port.target {
            case .file(let path):
                let file = try PortFile(path, port: port.name, loop: loop, clock: clock)
                files.append(file)
                sockets.append(nil)
                channels.append(ConsoleChannel(name: port.name, sink: file.sink))
            case .socket(let path):
                do throws(SocketError) {
                    let socket = try PortSocket(path: path, events: loop, clock: clock)
                    sockets.append(socket)
                    channels.append(ConsoleChannel(name: port.name, sink: socket))
                } catch {
                    throw RunError(exitStatus: GuestDevices.status(of: error), description: "--port \(port.name): \(error)")
                }
            }
        }
        do throws(ConsoleDeviceError) {
            device = try ConsoleDevice(sink: Nowhere(), channels: channels, events: loop, clock: clock)
        } catch {
            throw RunError(exitStatus: .badConfiguration, description: "--port: \(error)")
        }
        // The guest's console is its serial port: it would have one more that nobody hears.
        device.console.setPlugged(false)
        for (socket, port) in zip(sockets, device.ports.dropFirst()) { socket?.connect(port) }
        self.files = files
        self.clock = clock
    }

    /// The guest starts: files are emptied, the first time.
    func begin() { for file in files { file.file.begin() } }

    /// Nanoseconds that a reader may pause at the end, and that it may take for all.
    private static let patience: UInt64 = 500_000_000, limit: UInt64 = 10_000_000_000

    /// A life is over: whoever reads gets what the guest had sent, as long as they go on reading.
    func drain(isHasty: Bool) {
        let end = clock.now() &+ (isHasty ? Self.patience : Self.limit)
        var (deadline, sent) = (clock.now() &+ Self.patience, device.bytesSent)
        while device.transmitWaiting(), clock.now() < min(deadline, end) {
            usleep(2000)
            if device.bytesSent != sent { (deadline, sent) = (clock.now() &+ Self.patience, device.bytesSent) }
        }
    }

    /// The run is over.
    /// - Returns: what is to be said of output that the host could not take, a line each.
    func finish(isHasty: Bool) -> [String] {
        files.compactMap { file in
            file.sink.drain(limit: isHasty ? Self.patience : Self.limit)
            return GuestConsole.lostOutput(file.sink, what: "port \(file.port)'s", place: "'\(file.path)'")
        }
    }
}

/// A file that a port leads to. It is closed with this object, and removed where it is new and no guest has started.
private final class PortFile: Sendable {
    let path: String
    let port: String
    let file: OutputFile
    let sink: DescriptorSink

    init(_ path: String, port: String, loop: EventLoop, clock: any MonotonicClock) throws(RunError) {
        do throws(OutputFile.Failure) { file = try OutputFile(path) } catch {
            let reason = error.errno == ENXIO
                ? "it is a socket, or a pipe that nobody reads; start its reader first, or name another file" : "\(HostError.message(error.errno)); name another file"
            throw RunError(exitStatus: RunError.status(ofFile: error.errno), description: "--port \(port): '\(path)' cannot be written to: \(reason)")
        }
        self.path = path
        self.port = port
        sink = DescriptorSink(descriptor: file.descriptor, loop: loop, clock: clock)
    }

    deinit { file.close() }
}

/// Where the output of a console goes that the guest is not told of.
private final class Nowhere: ByteSink {
    func write(_ bytes: UnsafeRawBufferPointer) -> Int { bytes.count }
    func setSpaceHandler(_ handler: @escaping @Sendable () -> Void) {}
}
