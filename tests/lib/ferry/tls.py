# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates and keys for tests, made by GnuTLS' certtool when they are needed."""
import itertools
import shutil
from pathlib import Path

from .images import run_tool

_numbers = itertools.count(1)

SERVER = ('dns_name = "localhost"', 'ip_address = "127.0.0.1"', 'tls_www_server', 'signing_key')
CLIENT = ('tls_www_client', 'signing_key')


class Authority:
    """A certificate authority with its certificates, in a folder."""

    def __init__(self, folder, name='Test authority'):
        self.folder = Path(folder)
        self.folder.mkdir()
        self._key('ca')
        self._certtool('--generate-self-signed', 'ca', f'cn = "{name}"', 'ca', 'cert_signing_key', 'crl_signing_key',
                       'expiration_days = 30')

    def _key(self, name):
        run_tool('certtool', '--generate-privkey', '--ecdsa', '--curve=secp256r1', '--outfile', self.folder / f'{name}.key')

    def _certtool(self, what, name, *template, more=()):
        path = self.folder / f'{name}.template'
        path.write_text('\n'.join(template) + '\n')
        run_tool('certtool', what, '--template', path, '--load-privkey', self.folder / f'{name}.key', *more,
                 '--outfile', self.folder / f'{name}.pem')

    def _signed(self):
        return ('--load-ca-certificate', self.folder / 'ca.pem', '--load-ca-privkey', self.folder / 'ca.key')

    def cert(self, name, *template):
        """A certificate and its key; template lines are certtool's. Without an end date it is good for 30 days."""
        self._key(name)
        if not any(line.startswith('expiration') for line in template):
            template += ('expiration_days = 30',)
        self._certtool('--generate-certificate', name, *template, more=self._signed())
        return name

    def server(self, name='server', cn='localhost', template=SERVER):
        return self.cert(name, f'cn = "{cn}"', *template)

    def client(self, name='client', cn='alice'):
        return self.cert(name, f'cn = "{cn}"', 'organization = "Ferry tests"', *CLIENT)

    def revoke(self, *names):
        """A revocation list with these certificates; returns its path."""
        revoked = self.folder / 'revoked.pem'
        revoked.write_text(''.join((self.folder / f'{name}.pem').read_text() for name in names))
        template = self.folder / 'crl.template'
        template.write_text('expiration_days = 30\ncrl_number = 1\n')
        crl = self.folder / 'crl.pem'
        run_tool('certtool', '--generate-crl', '--template', template, '--load-certificate', revoked, *self._signed(),
                 '--outfile', crl)
        return crl

    def creds(self, server=None, client=None, ca=None, crl=None):
        """A folder for `dir` of tls-creds-x509: certificates by their names, trusting this authority or another one."""
        folder = self.folder / f'creds{next(_numbers)}'
        folder.mkdir()
        shutil.copy((ca or self).folder / 'ca.pem', folder / 'ca-cert.pem')
        for role, name in (('server', server), ('client', client)):
            if name:
                shutil.copy(self.folder / f'{name}.pem', folder / f'{role}-cert.pem')
                shutil.copy(self.folder / f'{name}.key', folder / f'{role}-key.pem')
        if crl:
            shutil.copy(crl, folder / 'ca-crl.pem')
        return folder


def psk_creds(folder, **users):
    """A folder for `dir` of tls-creds-psk: psk_creds(work / 'psk', alice='00ff')."""
    folder = Path(folder)
    folder.mkdir()
    (folder / 'keys.psk').write_text(''.join(f'{user}:{key}\n' for user, key in users.items()))
    return folder
