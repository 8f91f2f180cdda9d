# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: what is accepted, what is refused and how, and the contract of -daemonize."""
import json
import os
import signal
import socket
import subprocess

import pytest

import ferry

NONE = ['-machine', 'none', '-nodefaults', '-display', 'none']


def run(*args, **options):
    """Runs a command line that must end by itself."""
    return subprocess.run([*ferry.binary(), *map(str, args)], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=60 * ferry.time_scale(), **options)


@pytest.mark.parametrize('args, words', [
    (['-bogus'], '-bogus: invalid option'),
    (['-bios', 'x'], '-bios: Ferry does not have this option of QEMU'),
    (['-vnc', ':5'], '-vnc: Ferry does not have this option of QEMU'),
    (['--enable-kvm'], '--enable-kvm: Ferry does not have this option of QEMU'),
    (['-serial', 'stdio'], 'Ferry has no serial ports yet'),
    (['-net', 'user'], 'Ferry has no network devices yet'),
    (['-overcommit', 'mem-lock=on'], 'Ferry does not support mem-lock=on yet'),
    (['-display', 'vnc=:5'], "does not accept value 'vnc'"),
    (['-blockdev', 'driver=qcow2,node-name=d,file=nosuch'], 'takes the name of a node; a file of this host is file.filename=nosuch'),
    (['-qmp'], '-qmp: requires an argument'),
    (['disk.img'], 'disk.img'),
    (['-machine', 'foo'], "unsupported machine type 'foo'"),
    (['-machine', 'none,foo=bar'], 'foo'),
    (['-machine', 'none,accel=foo'], 'invalid accelerator foo'),
    (['-accel', 'foo'], 'invalid accelerator foo'),
    (['-smp', '2'], 'max CPUs'),
    (['-smp', 'x'], 'number'),
    (['-m', 'foo'], "Parameter 'size'"),
    (['-m', '1G,slots=2'], 'no max-size'),
    (['-m', '1G,slots=2,maxmem=1G'], 'maxmem leaves no room'),
    (['-m', '1G,maxmem=512M'], 'invalid value of maxmem'),
    (['-uuid', 'x'], 'failed to parse UUID'),
    (['-name', 'guest=a,foo=b'], "Invalid parameter 'foo'"),
    (['-display', 'gtk'], "'gtk'"),
    (['-msg', 'foo=on'], "Invalid parameter 'foo'"),
    (['-msg', 'timestamp=maybe'], "expects 'on' or 'off'"),
    (['-action', 'reboot=bar'], "'reboot' does not accept value 'bar'"),
    (['-boot', 'x=y'], "'x'"),
    (['-global', 'foo'], 'DRIVER.PROPERTY=VALUE'),
    (['-chardev', 'null'], 'no id'),
    (['-chardev', 'null,id=1'], 'identifier'),
    (['-chardev', 'bogus,id=x'], "'bogus' is not a valid char driver name"),
    (['-chardev', 'socket,id=x'], "'path', 'fd' or 'host'"),
    (['-chardev', 'socket,id=x,path=/a,host=b'], "'path', 'fd' or 'host'"),
    (['-chardev', 'socket,id=x,path=/a,foo=b'], "Invalid parameter 'foo'"),
    (['-chardev', 'null,id=a', '-chardev', 'null,id=a'], "Duplicate ID 'a'"),
    (['-mon', 'chardev=x'], 'chardev "x" not found'),
    (['-chardev', 'null,id=x', '-mon', 'chardev=x,mode=foo'], "'mode' does not accept value 'foo'"),
    (['-qmp', 'bogus:'], "'bogus:' is not a valid char driver"),
    (['-qmp', 'tcp:x'], 'parse error'),
    (['-qmp', 'unix:/nonexistent/x'], 'No such file'),
    (['-qmp', 'unix:/nonexistent/x,server=on,wait=off'], 'No such file'),
    (['-qmp', 'stdio', '-monitor', 'stdio'], 'stdio'),
    (['-object', 'foo,id=x'], "'foo'"),
    (['-object', 'iothread'], "'id'"),
    (['-object', 'iothread,id=x,foo=1'], "'foo'"),
    (['-blockdev', 'driver=foo,node-name=n'], "'foo'"),
    (['-blockdev', '{"driver":'], '-blockdev'),
    (['-blockdev', 'driver=null-co'], 'node-name'),
    (['-drive', 'file=/nonexistent/x,if=none,id=d'], 'No such file'),
    (['-add-fd', 'fd=0,set=1'], 'standard I/O'),
    (['-add-fd', 'fd=999,set=1'], 'not valid'),
    (['-add-fd', 'set=1'], 'fd option is required'),
    (['-pidfile', '/nonexistent/x'], 'cannot create PID file'),
    (['-D', '/nonexistent/x'], '/nonexistent/x'),
    (['-d', 'bogus'], 'bogus'),
    (['-runas', 'nobody'], 'not supported'),
])
def test_wrong_option_is_named_on_one_line_and_fails(args, words):
    done = run(*NONE, *args)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == '' or 'stdio' in args


def test_a_default_of_a_driver_that_is_not_here_is_ignored_with_a_warning(vmm):
    vm = vmm('-global', 'foo.bar=baz')
    assert vm.cmd('query-status')
    assert 'warning: global foo.bar has invalid class name' in vm.stderr()


def test_a_machine_must_be_chosen():
    done = run('-nodefaults')
    assert done.returncode == 1
    assert 'machine' in done.stderr


@pytest.mark.parametrize('args, words', [
    (['-help'], '-blockdev'),
    (['-h'], '-machine'),
    (['--help'], '-daemonize'),
    (['-version'], 'QEMU emulator version'),
    (['-machine', 'help'], 'none'),
    (['-accel', 'help'], 'qtest'),
    (['-chardev', 'help'], 'socket'),
    (['-object', 'help'], 'iothread'),
    (['-d', 'help'], 'guest_errors'),
])
def test_information_is_printed(args, words):
    done = run(*args)
    assert done.returncode == 0
    assert words in done.stdout
    assert done.stderr == ''


def test_help_shows_every_option_in_80_columns_of_explanation():
    text = run('-help').stdout
    for option in ('qmp', 'mon', 'monitor', 'chardev', 'object', 'drive', 'pidfile', 'trace', 'S', 'no-shutdown'):
        assert f'  -{option}' in text
    assert text.index('-machine') < text.index('-blockdev') < text.index('-qmp') < text.index('-daemonize')


def test_what_libvirt_probes_with_is_accepted(work, vmm):
    vm = vmm('-S', '-no-user-config', '-nodefaults', '-nographic', '-machine', 'none,accel=kvm:tcg', defaults=False)
    assert vm.cmd('query-status') == {'running': False, 'status': 'prelaunch'}


def test_options_show_in_queries(vmm):
    number = '01234567-89ab-cdef-0123-456789abcdef'
    vm = vmm('-name', 'guest=web,,1,debug-threads=on', '-uuid', number.upper(), '-smp', '1', '-m', 'size=131072k')
    assert vm.cmd('query-name') == {'name': 'web,1'}
    assert vm.cmd('query-uuid') == {'UUID': number}


def test_without_s_the_machine_runs(vmm):
    vm = vmm(*NONE, defaults=False)
    assert vm.cmd('query-status') == {'running': True, 'status': 'running'}
    vm.cmd('stop')
    assert vm.wait('STOP')
    assert vm.cmd('query-status') == {'running': False, 'status': 'paused'}
    vm.cmd('stop')
    vm.cmd('cont')
    vm.cmd('cont')
    assert len(vm.seen('RESUME')) == 1


def test_message_prefix():
    done = run(*NONE, '-msg', 'timestamp=on,guest-name=on', '-name', 'web', '-mon', 'x')
    assert done.returncode == 1
    date, rest = done.stderr.split(' ', 1)
    assert date.endswith('Z') and 'T' in date
    assert rest.startswith('web ')


def test_blockdev_drive_and_object_in_both_notations(vmm, work):
    image = work / 'a,b.raw'
    image.write_bytes(bytes(65536))
    vm = vmm('-object', 'iothread,id=one', '-object', json.dumps({'qom-type': 'iothread', 'id': 'two'}),
             '-blockdev', f'driver=file,node-name=f,filename={str(image).replace(",", ",,")}',
             '-blockdev', json.dumps({'driver': 'raw', 'node-name': 'r', 'file': 'f'}),
             '-drive', 'if=none,id=d,driver=null-co,size=1048576')
    assert {t['id'] for t in vm.cmd('query-iothreads')} == {'one', 'two'}
    assert {'f', 'r'} <= {n['node-name'] for n in vm.cmd('query-named-block-nodes')}
    assert [b['device'] for b in vm.cmd('query-block')] == ['d']


def test_inherited_descriptor_in_an_fd_set(vmm, work):
    path = work / 'log'
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    vm = vmm('-add-fd', f'fd={fd},set=7,opaque=here', '-chardev', 'file,id=log,path=/dev/fdset/7,append=on', pass_fds=[fd])
    os.close(fd)
    sets = vm.cmd('query-fdsets')
    assert [s['fdset-id'] for s in sets] == [7] and sets[0]['fds'][0]['opaque'] == 'here'


def test_inherited_listening_socket_for_qmp(vmm, work):
    path = str(work / 'inherited.sock')
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    early = socket.socket(socket.AF_UNIX)
    early.connect(path)                     # before the process exists, as libvirt does
    early.sendall(b'{"execute":"qmp_capabilities","id":1}')
    fd = listener.fileno()
    vmm('-chardev', f'socket,id=mon,fd={fd},server=on,wait=off', '-mon', 'chardev=mon,mode=control', pass_fds=[fd])
    listener.close()
    stream = early.makefile('rb')
    assert 'QMP' in json.loads(stream.readline())
    assert json.loads(stream.readline()) == {'return': {}, 'id': 1}
    early.close()
    stream.close()


def test_pidfile_is_locked_and_removed(vmm, work):
    path = work / 'pid'
    vm = vmm('-pidfile', path)
    assert int(path.read_text()) == vm.pid
    done = run(*NONE, '-pidfile', path)
    assert done.returncode == 1 and 'lock' in done.stderr
    assert int(path.read_text()) == vm.pid
    vm.quit()
    assert not path.exists()


# -daemonize


def daemonize(work, *args):
    """Starts a daemon; returns the finished parent and the daemon's pid."""
    pidfile, path = work / 'daemon.pid', work / 'daemon.sock'
    done = run('-S', '-no-user-config', '-nodefaults', '-nographic', '-machine', 'none,accel=kvm:tcg', '-qmp',
               f'unix:{path},server=on,wait=off', '-pidfile', pidfile, '-daemonize', *args)
    return done, pidfile, str(path)


def test_daemon_is_ready_when_its_parent_exits(work):
    """run() reads stderr to its end, which hangs if the daemon keeps it open."""
    done, pidfile, path = daemonize(work)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    pid = int(pidfile.read_text())
    try:
        assert pidfile.read_text().endswith('\n')
        client = ferry.QMPClient.connect(path)
        assert client.cmd('query-status')['status'] == 'prelaunch'
        for fd in range(3):
            assert os.readlink(f'/proc/{pid}/fd/{fd}') == '/dev/null'
        assert os.readlink(f'/proc/{pid}/cwd') == '/'
        assert os.getsid(pid) not in (os.getsid(0), pid)
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        assert client.wait('SHUTDOWN')['data']['reason'] == 'host-signal'
        client.wait_closed()
        client.close()
        import select
        assert select.select([pidfd], [], [], 60 * ferry.time_scale())[0]
        os.close(pidfd)
        assert not pidfile.exists() and not os.path.exists(path)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


def test_daemon_that_cannot_start_says_so_and_fails(work):
    done, pidfile, path = daemonize(work, '-object', 'iothread')
    assert done.returncode == 1
    assert "'id'" in done.stderr
    assert not pidfile.exists() and not os.path.exists(path)


# Signals


def test_second_signal_gives_up_waiting_for_what_hangs(vmm, qemu_nbd, work):
    """The disk's server is frozen, so the last flush never ends; the user says twice that the process must go."""
    image = work / 'disk.raw'
    image.write_bytes(bytes(1 << 20))
    server = qemu_nbd(image)
    vm = vmm('-pidfile', work / 'pid')
    vm.cmd('blockdev-add', server.node('disk'))
    uri = vm.export('disk')
    client = ferry.nbd_connect(uri)
    client.pwrite(bytes(65536), 0)          # acknowledged, and not flushed
    server.process.send_signal(signal.SIGSTOP)
    try:
        vm.process.send_signal(signal.SIGTERM)
        vm.wait('SHUTDOWN')
        vm.expected.add(1)
        guard = ferry.Guard(60)
        while vm.running():                 # how often is not the point: a signal soon after the first is not yet impatience
            vm.process.send_signal(signal.SIGTERM)
            guard.left()
        assert vm.wait_exit() == 1
        assert 'while waiting for: ' in vm.stderr()
        assert not (work / 'pid').exists()
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_options_are_described(vm):
    options = {o['option']: {p['name']: p['type'] for p in o['parameters']} for o in vm.cmd('query-command-line-options')}
    assert options['mon'] == {'chardev': 'string', 'mode': 'string', 'pretty': 'boolean'}
    assert options['memory']['size'] == 'size' and options['add-fd']['fd'] == 'number'
    assert not {'sandbox', 'spice', 'vnc'} & set(options), 'what is advertised is used'
    assert vm.cmd('query-command-line-options', option='mon') == [
        o for o in vm.cmd('query-command-line-options') if o['option'] == 'mon']
    with pytest.raises(ferry.QMPError, match='invalid option name: nope'):
        vm.cmd('query-command-line-options', option='nope')


@pytest.mark.parametrize('option, word', [('chardev', 'null,id=c'), ('drive', 'driver=null-co'), ('machine', 'none'),
                                          ('name', 'x'), ('msg', ''), ('memory', '64'), ('smp-opts', '1'),
                                          ('boot-opts', 'order=c'), ('action', 'reboot=reset')])
def test_described_parameters_are_known(vm, option, word):
    """The option complains, if at all, about the value of a parameter and never about its name."""
    flags = {'memory': 'm', 'smp-opts': 'smp', 'boot-opts': 'boot'}
    for parameter in vm.cmd('query-command-line-options', option=option)[0]['parameters']:
        args = ['-machine', 'none', '-display', 'none', '-S', '-' + flags.get(option, option),
                f'{word},{parameter["name"]}=%'.lstrip(',')]
        if option == 'chardev':     # each kind has its own
            kinds = ['null', 'file', 'ringbuf', 'stdio', 'socket', 'socket,host=x', 'socket,path=/', 'socket,server=on']
            args = [[*args[:-1], f'{kind},id=c,{parameter["name"]}=%'] for kind in kinds]
        else:
            args = [args]
        texts = []
        for words in args:          # up to the first kind that has the parameter
            texts.append(subprocess.run([*ferry.binary(), *words, '-pidfile', '/nonexistent/x'], capture_output=True, text=True,
                                        timeout=60, check=False, stdin=subprocess.DEVNULL).stderr)
            if f"'{parameter['name'].split('.')[-1]}' is unexpected" not in texts[-1] and 'Invalid parameter' not in texts[-1]:
                break
        else:
            pytest.fail('\n'.join(texts))


def test_what_switches_off_what_is_not_there_is_accepted(vmm):
    vm = vmm('-parallel', 'none', '-serial', 'none', '-nic', 'none', '-net', 'none', '-overcommit', 'mem-lock=off')
    assert vm.cmd('query-status')['status'] == 'prelaunch'
    assert vm.stderr() == ''


@pytest.mark.parametrize('name', ['kvm', 'tcg'])
def test_an_accelerator_that_does_nothing_says_so(vmm, name):
    vm = vmm('-accel', name)
    assert f"accelerator '{name}' is accepted and does nothing" in vm.stderr()


def test_drive_help_lists_parameters():
    done = run('-drive', 'help')
    assert done.returncode == 0
    assert 'throttling.bps-total=<number>' in done.stdout and 'read-only=<boolean>' in done.stdout


def test_no_option_of_the_help_is_said_to_be_missing():
    """The table of what Ferry lacks and the table of what it has share no name."""
    for line in run('-help').stdout.splitlines():
        if line.startswith('  -'):
            for word in line.split('  ')[1].split(' or '):
                assert 'does not have this option' not in run(word.split()[0]).stderr, word
