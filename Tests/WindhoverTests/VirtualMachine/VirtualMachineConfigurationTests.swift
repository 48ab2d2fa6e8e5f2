import Testing

@testable import Windhover

/// What a virtual machine cannot be, and what is said of it.
@Suite struct VirtualMachineConfigurationTests {
    private func message(_ change: (inout VirtualMachineConfiguration) throws -> Void) throws -> String? {
        var configuration = VirtualMachineConfiguration()
        try change(&configuration)
        do {
            try configuration.validate()
            return nil
        } catch {
            #expect(error is any ReportableError)
            return "\(error)"
        }
    }

    @Test func nothingHasToBeSaid() throws {
        #expect(try message { _ in } == nil)
        #expect(throws: Never.self) { try VirtualMachine(VirtualMachineConfiguration()) }
    }

    @Test(arguments: [0, -1, 255]) func processorsAreFromOneTo254(count: Int) throws {
        #expect(try message { $0.cpuCount = count } == "a guest cannot have \(count) CPUs: give it from 1 to 254")
    }

    @Test func memoryIsTheHostsAtMost() throws {
        let text = try #require(try message { $0.memory = try MemorySize("4096T") })
        #expect(text.contains("more than this host's"))
    }

    @Test func aCommandLineHasNoZero() throws {
        #expect(try message { $0.commandLine = "a\0b" } == "the command line holds a zero byte, which would end it there")
    }

    @Test(arguments: [Duration.zero, .seconds(-1)]) func aGuestNeedsTimeToComeUp(limit: Duration) throws {
        #expect(try message { $0.bootTimeLimit = limit } == "a guest that has no time to come up never does")
    }

    @Test func aRootOnADiskNeedsOne() throws {
        #expect(try message { $0.root = .disk } == "the root is to be a disk, and there is none: add one to disks")
    }

    @Test func whatIsNamedIsThere() throws {
        #expect(try message { $0.root = .directory("/no/such") }?.hasPrefix("the root: there is no directory '/no/such'") == true)
        #expect(try message { $0.modules = "/etc/passwd" }?.hasPrefix("the modules: '/etc/passwd' is not a directory") == true)
        #expect(try message { $0.disks = [try DiskConfiguration("/no/such")] }?.contains("/no/such") == true)
        let share = try message { $0.shares = [.init(directory: "/no/such", path: "/mnt")] }
        #expect(share?.hasPrefix("the share at /mnt: there is no directory '/no/such'") == true)
    }

    @Test(arguments: ["mnt", "", "/a\0b"]) func aShareIsAtAnAbsolutePath(path: String) throws {
        let text = try #require(try message { $0.shares = [.init(directory: "/tmp", path: path)] })
        #expect(text.contains("is no absolute path"))
    }

    @Test(arguments: ["/", "//", "/a/.."]) func aShareIsNotTheRoot(path: String) throws {
        let text = try #require(try message { $0.shares = [.init(directory: "/tmp", path: path)] })
        #expect(text.hasPrefix("a directory cannot be in the place of the root"))
    }

    @Test(arguments: ["/mnt", "/mnt/", "//mnt", "/a/../mnt"]) func eachShareHasAPlaceOfItsOwn(other: String) throws {
        let shares = [ExecShare(directory: "/tmp", path: "/mnt"), ExecShare(directory: "/etc", path: other)]
        #expect(try message { $0.shares = shares } == "two directories are to be at '/mnt': give each a place of its own")
    }

    @Test func thereIsRoomForSoManyDevices() throws {
        func shares(_ count: Int) -> [ExecShare] { (0..<count).map { ExecShare(directory: "/tmp", path: "/mnt/\($0)") } }
        #expect(try message { $0.shares = shares(23) } == nil)
        #expect(
            try message { $0.shares = shares(24) }
                == "0 disks, 0 networks and 24 directories are more than the 23 that a machine has room for")
    }

    @Test func onlyKVMCanBeMissing() throws {
        var configuration = VirtualMachineConfiguration()
        for engine in [EngineChoice.auto, .interpreter] {
            configuration.engine = engine
            try configuration.checkEngine()
        }
    }
}
