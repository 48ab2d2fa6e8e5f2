import Testing
import MonitorTesting

@testable import Virtio

/// A few hundred cases of `fuzz-virtio` for every device behind both transports; the program itself runs for as long as wanted.
@Suite(.serialized) struct VirtioFuzzTests {
    static let places = FuzzSubject.allCases.flatMap { subject in
        TransportKind.allCases.map { HostilePlace(subject: subject, kind: $0) }
    }

    @Test(arguments: places) func anyDriver(place: HostilePlace) throws {
        let fuzzer = VirtioFuzzer(seed: 20_26, subject: place.subject.make, transport: place.kind.driver)
        // Connections take their time.
        let cases: UInt64 = place.subject == .share ? 120 : place.subject == .socket ? 60 : 12
        try fuzzer.run(count: cases)
        #expect(fuzzer.cases == cases)
        // That it comes to something: devices that do nothing prove nothing.
        #expect(fuzzer.counts["requests that came back", default: 0] > 20)
        let work: [String] =
            switch place.subject {
            case .entropy: ["bytes"]
            case .blockNull: ["reads", "writes", "flushes", "discards", "writeZeroes", "errors", "unsupported"]
            // Here some of it depends on the host's threads.
            case .blockThreads, .blockRing, .blockQCOW2, .blockMutated: ["reads", "writes", "errors"]
            case .net, .netStream, .netQueues: ["framesReceived", "framesSent"]
            case .console: ["bytesSent", "bytesReceived"]
            case .balloon: ["bytesInflated", "bytesReleased", "bytesReported"]
            case .socket: ["connections", "bytesToHost", "resets"]
            case .share: ["requests", "errors", "bytesRead", "bytesWritten"]
            }
        #expect(fuzzer.counts["escapes", default: 0] == 0)
        for name in work { #expect(fuzzer.counts[name, default: 0] > 0, "\(name)") }
    }
}
