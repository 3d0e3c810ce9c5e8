import type * as etcd from 'etcd3';
import { definitions } from './definitions.ts';
import type { Method } from './grpc.ts';

const method = <Request, Answer>(service: string, name: string) =>
  definitions[`etcdserverpb.${service}`]![name] as unknown as Method<Request, Answer>;

/** The methods of etcd that are called. */
export const RANGE = method<etcd.IRangeRequest, etcd.IRangeResponse>('KV', 'Range');
export const PUT = method<etcd.IPutRequest, etcd.IPutResponse>('KV', 'Put');
export const DELETE_RANGE = method<etcd.IDeleteRangeRequest, etcd.IDeleteRangeResponse>('KV', 'DeleteRange');
export const TXN = method<etcd.ITxnRequest, etcd.ITxnResponse>('KV', 'Txn');
export const WATCH = method<etcd.IWatchRequest, etcd.IWatchResponse>('Watch', 'Watch');
export const LEASE_GRANT = method<etcd.ILeaseGrantRequest, etcd.ILeaseGrantResponse>('Lease', 'LeaseGrant');
export const LEASE_REVOKE = method<etcd.ILeaseRevokeRequest, etcd.ILeaseRevokeResponse>('Lease', 'LeaseRevoke');
export const LEASE_KEEP_ALIVE = method<etcd.ILeaseKeepAliveRequest, etcd.ILeaseKeepAliveResponse>(
  'Lease',
  'LeaseKeepAlive',
);
export const LEASE_TIME_TO_LIVE = method<etcd.ILeaseTimeToLiveRequest, etcd.ILeaseTimeToLiveResponse>(
  'Lease',
  'LeaseTimeToLive',
);
export const AUTHENTICATE = method<etcd.IAuthenticateRequest, etcd.IAuthenticateResponse>('Auth', 'Authenticate');
