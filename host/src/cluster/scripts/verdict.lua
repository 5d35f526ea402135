-- Whether a partition is still this node's. What every script of an owner begins with.
-- `mine` is the owner's epoch, `me` its number, `number` that of the batch.
local now = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'owner', 'b' .. (mine + 1))
local epoch, last = tonumber(now[1]), tonumber(now[2])
if not epoch or epoch < mine then
  return {'lost'}
end
if epoch > mine or now[3] ~= me then
  return {'fenced', now[4]}
end
